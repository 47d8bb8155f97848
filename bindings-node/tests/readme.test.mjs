// The programs of the README run as printed.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const readme = readFileSync(join(here, "..", "README.md"), "utf8");
const programs = [...readme.matchAll(/^```(\S+)(.*)\n([\s\S]*?)^```$/gm)]
  .map(([, language, flags, text]) => ({ language, flags, text }))
  .filter(({ language, flags }) => language === "js" && !flags.includes("no-run"));

function run(command, args, cwd) {
  return new Promise((resolve) => {
    execFile(command, args, { cwd, timeout: 60_000 }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : (error.code ?? error.signal), stdout, stderr });
    });
  });
}

test("the README has programs", () => assert.ok(programs.length >= 6));

programs.forEach(({ text }, number) => {
  test(`program ${number + 1} of the README runs`, async () => {
    const folder = mkdtempSync(join(here, "readme-"));
    try {
      if (text.includes('from "vitest"')) {
        writeFileSync(join(folder, "greets.test.mjs"), text);
        const { status, stdout, stderr } = await run(process.execPath, [vitest(), "run", "--root", folder], here);
        assert.equal(status, 0, stdout + stderr);
        assert.match(stdout, /1 passed/);
        return;
      }
      const file = join(folder, "program.mjs");
      writeFileSync(file, text);
      const { status, stdout, stderr } = await run(process.execPath, [file], folder);
      assert.equal(status, 0, stdout + stderr);
      assert.equal(stderr, "");
      // What a program says that it prints.
      const said = [...text.matchAll(/^console\.log\(.*\); \/\/ (.*)$/gm)].map(([, line]) => line);
      for (const line of said) assert.ok(stdout.split("\n").includes(line), `${line} is not in:\n${stdout}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

function vitest() {
  return fileURLToPath(import.meta.resolve("vitest").replace(/dist\/.*$/, "vitest.mjs"));
}
