// The Chromium of PATH.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const tools = createRequire(new URL("../../../.build/browser/package.json", import.meta.url));

export const { chromium } = tools("playwright-core");

/** What it is launched with; tests run as root in a container, where its sandbox does not. */
export const launched = {
  executablePath: process.env.PATH.split(":")
    .map((folder) => join(folder, "chromium"))
    .find(existsSync),
  args: ["--no-sandbox"],
};
