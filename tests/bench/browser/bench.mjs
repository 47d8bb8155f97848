// The benchmark of the browser's client: `node tests/bench/browser/bench.mjs [--rounds N] [--seconds S] [--only acks,transport,cold]`.
//
// It measures in headless Chromium, prints tables, and ends with status 0 whatever the figures are.

import { execFileSync, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = fileURLToPath(new URL("../../..", import.meta.url));
const client = join(root, ".build/js-client/package");
const work = join(root, ".build/bench-browser");

const FIRSTS_A_ROUND = 4;
const FEWEST_FIRSTS = 16;

/** Milliseconds that a page may take beyond what it measures. */
const DEADLINE = 60_000;

const PAGE = `<!doctype html><title>ETP</title><script type="module">
  import * as work from "/work.js";
  const [f, what] = JSON.parse(decodeURIComponent(location.search.slice(1)));
  const outcome = await work[f](what).then((result) => ({ result }), (error) => ({ error: String(error) }));
  await fetch("/?" + encodeURIComponent(JSON.stringify(outcome)), { method: "POST" });
</script>`;

/**
 * A work: what is measured in one run, with whom, and what is wanted of the first one's figure as a share of another's. `more`: the
 * greater figure is the better one.
 */
const WORKS = {
  acks: {
    what: "64 acks in flight, 32 B, over a socket",
    unit: "acks/s",
    more: true,
    places: ["chromium"],
    contestants: ["etp", "hand", "hand-timers", "socket.io", "nowasm"],
    wanted: { hand: [1.0, 0.85], "socket.io": [undefined, 1.2] },
  },
  transport: {
    what: "64 acks in flight, 4 KiB, no socket",
    unit: "acks/s",
    more: true,
    places: ["chromium", "node"],
    contestants: ["etp", "hand", "hand-timers", "nowasm"],
    wanted: { hand: [1.0, 0.6] },
  },
  cold: {
    what: "import to the first connection, cold",
    unit: "ms",
    more: false,
    places: ["chromium"],
    contestants: ["etp", "hand", "nowasm"],
    wanted: { hand: [1.5, 2.0] },
  },
};

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    only: { type: "string", default: Object.keys(WORKS).join() },
  },
});
const rounds = Number(options.rounds);
const seconds = Number(options.seconds);
const chosen = options.only.split(",");
if (!(Number.isInteger(rounds) && rounds > 0 && seconds > 0 && chosen.every((name) => Object.hasOwn(WORKS, name)))) {
  console.error(`usage: bench.mjs [--rounds N] [--seconds S] [--only ${Object.keys(WORKS).join()}]`);
  process.exit(2);
}

/** What is to be ended, the last one first. */
const started = [];
const results = [];
try {
  await prepare();
  const { etp, socketio, version, pages } = await start();
  const url = { etp, nowasm: etp, hand: etp, "hand-timers": etp, "socket.io": socketio };
  console.log(`Chromium ${version}, Node ${process.version}, ${cpus().length} cores, ${rounds} rounds\n`);
  for (const name of chosen) {
    for (const place of WORKS[name].places) {
      const one = {
        acks: (contestant) =>
          inPage(pages, "rate", { contestant, url: url[contestant], bytes: 32, inFlight: 64, seconds }),
        transport: (contestant) =>
          place === "node"
            ? inNode(contestant)
            : inPage(pages, "rate", { contestant, bytes: 4096, inFlight: 64, seconds }),
        cold: (contestant) => inPage(pages, "first", { contestant, url: url[contestant] }),
      }[name];
      const times = name === "cold" ? Math.max(FEWEST_FIRSTS, rounds * FIRSTS_A_ROUND) : rounds;
      results.push({ name, place, ...WORKS[name], samples: await interleaved(WORKS[name].contestants, times, one) });
    }
  }
} finally {
  for (const end of started.reverse()) await end();
}
report();

// --- What is measured, and with what -------------------------------------------------------------------------------------

/** A folder with all that a page loads, so that what is built meanwhile changes nothing. */
async function prepare() {
  if (!existsSync(join(client, "index.js"))) throw new Error("there is no client: run `make js-client`");
  const lock = (folder) => readFileSync(join(folder, "package-lock.json"), "utf8");
  mkdirSync(work, { recursive: true });
  const installed = existsSync(join(work, "node_modules/.package-lock.json")) && lock(work) === lock(here);
  for (const file of ["package.json", "package-lock.json"]) copyFileSync(join(here, file), join(work, file));
  if (!installed) {
    const quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    execFileSync("npm", ["ci", "--prefix", work, ...quiet], { stdio: "inherit" });
  }
  copyFileSync(join(client, "index.js"), join(work, "etp.js"));
  copyFileSync(join(client, "nowasm.js"), join(work, "nowasm.js"));
  copyFileSync(join(work, "node_modules/socket.io-client/dist/socket.io.esm.min.js"), join(work, "socket.io.js"));
  copyFileSync(join(root, "tests/bench/peers/node/socketio_peer.mjs"), join(work, "socketio_peer.mjs"));
  for (const file of ["work.js", "loopback.js", "transport.js"]) copyFileSync(join(here, file), join(work, file));
  const { build } = createRequire(join(work, "package.json"))("esbuild");
  const entryPoints = [join(here, "handwritten.js")];
  await build({ entryPoints, outfile: join(work, "hand.js"), minify: true, format: "esm", target: "es2022" });
}

async function start() {
  const outcomes = new EventEmitter();
  const files = createServer(async ({ method, url }, response) => {
    const { pathname, search } = new URL(url, "http://127.0.0.1");
    const type = { "/": "text/html" }[pathname] ?? { ".js": "text/javascript" }[extname(pathname)];
    if (method === "POST") outcomes.emit("outcome", JSON.parse(decodeURIComponent(search.slice(1))));
    if (method === "POST" || !type) response.writeHead(204).end();
    else {
      response.writeHead(200, { "content-type": type, "cache-control": "no-store" });
      response.end(pathname === "/" ? PAGE : readFileSync(join(work, pathname)));
    }
  });
  files.listen(0, "127.0.0.1");
  await once(files, "listening");
  started.push(() => {
    files.closeAllConnections();
    return new Promise((resolve) => files.close(resolve));
  });
  const etp = await peer(join(root, "tests/peers/run"), ["rust"]);
  const socketio = await peer(process.execPath, [join(work, "socketio_peer.mjs")]);
  const { chromium } = createRequire(join(root, ".build/browser/package.json"))("playwright-core");
  const executablePath = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  started.push(() => browser.close());
  const base = `http://127.0.0.1:${files.address().port}`;
  const pages = { cdp: await browser.newBrowserCDPSession(), base, outcomes };
  return { etp, socketio: new URL(socketio).origin, version: browser.version(), pages };
}

/** Starts a server; answers its URL. */
async function peer(program, parameters) {
  const child = spawn(program, parameters, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  started.push(async () => {
    child.kill("SIGTERM");
    await exited;
  });
  for await (const line of createInterface({ input: child.stdout })) {
    const [word, url] = line.split(" ");
    if (word === "LISTENING") return url;
  }
  throw new Error(`${program} ${parameters.join(" ")} did not start`);
}

/** Each once a round, and another one first in each. */
async function interleaved(contestants, times, one) {
  const samples = Object.fromEntries(contestants.map((contestant) => [contestant, []]));
  for (let round = 0; round < times; round += 1) {
    for (let place = 0; place < contestants.length; place += 1) {
      const contestant = contestants[(round + place) % contestants.length];
      samples[contestant].push(await one(contestant));
    }
  }
  return samples;
}

/**
 * In a page of its own, with a profile of its own: no cache, and no code that another one has warmed up. Playwright does not know
 * this page: of its own ones it hears each frame of each WebSocket, which costs far more than the frame itself.
 */
async function inPage({ cdp, base, outcomes }, f, what) {
  const { browserContextId } = await cdp.send("Target.createBrowserContext");
  try {
    const outcome = once(outcomes, "outcome", { signal: AbortSignal.timeout(DEADLINE + seconds * 1250) });
    const url = `${base}/?${encodeURIComponent(JSON.stringify([f, what]))}`;
    await cdp.send("Target.createTarget", { url, browserContextId });
    const [{ error, result }] = await outcome;
    if (error) throw new Error(`${f} of ${what.contestant}: ${error}`);
    return result;
  } finally {
    await cdp.send("Target.disposeBrowserContext", { browserContextId });
  }
}

async function inNode(contestant) {
  const child = spawn(process.execPath, [join(work, "transport.js"), contestant, String(seconds)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [lines, [status]] = await Promise.all([child.stdout.toArray(), once(child, "exit")]);
  if (status !== 0) throw new Error(`the loopback in Node ended with status ${status}`);
  return Number(Buffer.concat(lines).toString());
}

// --- What is told ----------------------------------------------------------------------------------------------------------

function report() {
  const figures = [["work", "where", "who", "median", "least", "most"]];
  const parts = [["first connection, median ms", "in all", "import", "make", "connect"]];
  const wants = [["work", "where", "ours", "against", "ratio", "least", "most", "goal", "floor", "met"]];
  for (const { name, place, what, unit, more, samples, contestants, wanted } of results) {
    const digits = more ? 0 : 1;
    const values = {};
    for (const contestant of contestants) {
      const all = samples[contestant];
      values[contestant] = all.map((sample) => sample.total ?? sample);
      figures.push([what, place, contestant, three(values[contestant], digits).join("|")]);
      if (name !== "cold") continue;
      const part = (key) => median(all.map((sample) => sample[key])).toFixed(1);
      parts.push([contestant, ...["total", "import", "make", "connect"].map(part)]);
    }
    const ratio = (ours, against) => {
      const shares = values[ours].map((value, round) => value / values[against][round]);
      const [goal, floor] = (place === "chromium" && ours === "etp" && wanted[against]) || [];
      // What happens once in a page varies too much for shares of single ones.
      const share = more ? median(shares) : median(values[ours]) / median(values[against]);
      const reaches = (bound) => (more ? share >= bound : share <= bound);
      const met = floor === undefined ? "" : goal && reaches(goal) ? "goal" : reaches(floor) ? "floor" : "NO";
      const cells = [goal, floor].map((bound) => bound?.toFixed(2) ?? "");
      const spread = more ? three(shares, 2).slice(1) : ["", ""];
      wants.push([`${what} (${unit})`, place, ours, against, share.toFixed(2), ...spread, ...cells, met]);
    };
    for (const against of contestants.slice(1).filter((who) => who !== "nowasm")) ratio("etp", against);
    ratio("nowasm", "hand");
  }
  table(figures);
  if (parts.length > 1) table(parts);
  table(wants);
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** Median, least and most. */
function three(values, digits) {
  return [median(values), Math.min(...values), Math.max(...values)].map((value) => value.toFixed(digits));
}

/** Cells with a bar in them are several. */
function table(rows) {
  const cells = rows.map((row) => row.flatMap((cell) => cell.split("|")));
  const widths = cells[0].map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const aligned = (cell, column) =>
    /^[\d.]+$/.test(cell) ? cell.padStart(widths[column]) : cell.padEnd(widths[column]);
  for (const row of cells) console.log(row.map(aligned).join("  ").trimEnd());
  console.log();
}
