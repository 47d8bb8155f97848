/** Says in the title what a server answers. */
export async function say(Client) {
  try {
    const client = await new Client(new URLSearchParams(location.search).get("server")).connect();
    document.title = await client.emitWithAck("echo", "it works");
    await client.close();
  } catch (error) {
    document.title = `${error.code}: ${error.message}`;
  }
}
