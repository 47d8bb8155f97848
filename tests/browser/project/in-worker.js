const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => {
  document.title = data;
};
// One that can't be loaded says no more than that.
worker.onerror = ({ message }) => {
  throw new Error(`the Worker failed: ${message}`);
};
worker.postMessage(new URLSearchParams(location.search).get("server"));
