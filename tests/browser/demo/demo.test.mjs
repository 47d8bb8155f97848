// The chat of `make demo`, in two windows: a phone's and a desktop's. ETP_DEMO names the servers, "rust python node" for all;
// ETP_SCREENSHOTS a folder that keeps what the windows looked like.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const { chromium } = createRequire(join(root, ".build/browser/package.json"))("playwright-core");

const SERVERS = {
  rust: ["target/debug/examples/chat"],
  python: [".venv-3.11/bin/python", "bindings-python/examples/chat.py"],
  node: [".build/node/26/bin/node", ".build/node-26/bindings-node/examples/chat.mjs"],
};
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const DESKTOP = { viewport: { width: 1200, height: 800 } };
const screenshots = process.env.ETP_SCREENSHOTS;
if (screenshots) mkdirSync(screenshots, { recursive: true });

let browser;
before(async () => {
  const executablePath = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
});
after(() => browser.close());

/** The demo's server: says where it listens, and can be stopped and started on that address. */
class Demo {
  addr = "127.0.0.1:0";

  constructor(name) {
    [this.command, ...this.args] = SERVERS[name];
  }

  async start() {
    const env = { ...process.env, ADDR: this.addr };
    this.process = spawn(join(root, this.command), this.args, { cwd: root, env, stdio: ["ignore", "pipe", "inherit"] });
    this.ended = once(this.process, "exit");
    const lines = createInterface({ input: this.process.stdout });
    const said = await Promise.race([once(lines, "line"), this.ended]);
    this.url = /http:\/\/[\d.:]+/.exec(said[0])[0];
    this.addr = new URL(this.url).host;
  }

  /** Ctrl-C. */
  async stop() {
    this.process.kill("SIGINT");
    await this.ended;
  }

  async end() {
    this.process.kill("SIGKILL");
    await this.ended;
  }
}

/** A window with the chat in it, which fails the test when it loads anew or breaks a rule of its own policy. */
class Window {
  loads = 0;
  violations = [];

  async open(t, url, options) {
    const context = await browser.newContext(options);
    t.after(() => context.close());
    this.page = await context.newPage();
    this.page.setDefaultTimeout(30_000);
    this.page.on("load", () => {
      this.loads += 1;
    });
    this.page.on("pageerror", (error) => this.violations.push(String(error)));
    this.page.on("console", (message) => {
      // That a dial failed says the browser itself.
      const text = message.text();
      if (message.type() === "error" && !text.startsWith("WebSocket connection to")) this.violations.push(text);
    });
    await this.page.goto(url);
    return this;
  }

  async join(name, room) {
    await this.page.getByLabel("Your name").fill(name);
    await this.page.getByLabel("Room").fill(room);
    await this.page.getByRole("button", { name: "Join" }).click();
    await this.page.getByLabel("Message", { exact: true }).waitFor();
  }

  async say(text) {
    await this.page.getByLabel("Message", { exact: true }).fill(text);
    await this.page.getByLabel("Message", { exact: true }).press("Enter");
  }

  async hears(name, text) {
    await this.page.locator(`#log li:not(.waiting)[data-name="${name}"]`, { hasText: text }).waitFor();
  }

  async shows(state) {
    await this.page.getByRole("status").getByText(state, { exact: true }).waitFor();
  }

  async members(text) {
    await this.page.locator("#members").getByText(text, { exact: true }).waitFor();
  }

  lines() {
    return this.page.locator("#log li:not(.note)").count();
  }

  async shoot(name) {
    if (screenshots) await this.page.screenshot({ path: join(screenshots, `${name}.png`) });
  }
}

for (const name of (process.env.ETP_DEMO ?? "rust").split(" ")) {
  test(`${name}: two windows talk, and outlive a restart of the server`, async (t) => {
    const demo = new Demo(name);
    await demo.start();
    t.after(() => demo.end());

    const phone = await new Window().open(t, demo.url, PHONE);
    const desktop = await new Window().open(t, demo.url, DESKTOP);
    await phone.shows("connected");
    await phone.shoot(`${name}-1-join-phone`);
    await desktop.shoot(`${name}-1-join-desktop`);

    await phone.join("Ann", "tea");
    await desktop.join("Bob", "tea");
    for (const window of [phone, desktop]) await window.members("2 here: Ann, Bob");
    await phone.say("hello from the phone");
    await desktop.hears("Ann", "hello from the phone");
    await desktop.say("hello <b>back</b>");
    await desktop.say(
      "A longer one, to see how lines are broken: a small screen shows them as well as a large one does, in both directions.",
    );
    await phone.hears("Bob", "A longer one");
    await phone.hears("Bob", "hello <b>back</b>");
    await phone.say("and here an answer");
    await desktop.hears("Ann", "and here an answer");
    await phone.shoot(`${name}-2-talk-phone`);
    await desktop.shoot(`${name}-2-talk-desktop`);

    // Rooms are apart.
    await desktop.page.getByRole("button", { name: "Leave" }).click();
    await phone.members("1 here: Ann");
    await desktop.join("Bob", "coffee");
    await phone.say("is nobody here?");
    await phone.hears("Ann", "is nobody here?");
    assert.equal(await desktop.lines(), 0);
    await desktop.page.getByRole("button", { name: "Leave" }).click();
    await desktop.join("Bob", "tea");
    await phone.members("2 here: Ann, Bob");

    await demo.stop();
    for (const window of [phone, desktop]) await window.shows("reconnecting");
    await phone.say("typed while away");
    await phone.page.locator("#log li.waiting", { hasText: "typed while away" }).waitFor();
    await phone.shoot(`${name}-3-away-phone`);
    await desktop.page.context().setOffline(true);
    await desktop.shows("offline");
    await desktop.page.context().setOffline(false);
    await desktop.shows("reconnecting");

    await demo.start();
    for (const window of [phone, desktop]) {
      await window.shows("connected");
      await window.members("2 here: Ann, Bob");
    }
    // What waited has been said to the room, and waits no more.
    await phone.hears("Ann", "typed while away");
    await phone.page.locator("#log li.waiting").waitFor({ state: "detached" });
    await desktop.say("welcome back");
    await phone.hears("Bob", "welcome back");
    await phone.shoot(`${name}-4-back-phone`);
    await phone.page.emulateMedia({ colorScheme: "dark" });
    await desktop.page.emulateMedia({ colorScheme: "dark" });
    await phone.shoot(`${name}-5-dark-phone`);
    await desktop.shoot(`${name}-5-dark-desktop`);

    for (const window of [phone, desktop]) {
      assert.equal(window.loads, 1);
      assert.deepEqual(window.violations, []);
    }
    // A phone scrolls down a page, never across it, and does not zoom into its fields.
    const wider = () => document.documentElement.scrollWidth > document.documentElement.clientWidth;
    assert.equal(await phone.page.evaluate(wider), false);
    const size = () => getComputedStyle(document.querySelector("#text")).fontSize;
    assert.equal(await phone.page.evaluate(size), "16px");
    await demo.stop();
  });
}
