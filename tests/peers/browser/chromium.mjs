// The Chromium of PATH, and one for many dials: `chromium.mjs` prints its endpoint and lives until its input ends.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const tools = createRequire(new URL("../../../.build/browser/package.json", import.meta.url));

export const { chromium } = tools("playwright-core");

/** What it is launched with; tests run as root in a container, where its sandbox does not. */
export const launched = {
  executablePath: process.env.PATH.split(":")
    .map((folder) => join(folder, "chromium"))
    .find(existsSync),
  args: ["--no-sandbox"],
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await chromium.launchServer(launched);
  console.log(server.wsEndpoint());
  for await (const _ of process.stdin);
  await server.close();
}
