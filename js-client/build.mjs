// Builds the package that is published in a folder: `node build.mjs FOLDER`. The engine is compiled from bindings-wasm, made small by binaryen,
// and put into each entry in its own way: within the file, beside it, or as plain JavaScript.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import binaryen from "binaryen";
import { build } from "esbuild";
import { minify } from "terser";

const home = dirname(fileURLToPath(import.meta.url));
const root = dirname(home);
const folder = resolve(process.argv[2]);
const work = join(root, "target", "wasm");
const tools = join(home, "node_modules", ".bin");

/**
 * Names of our own that no application sees, and no browser: they are cut to a letter. None may be one of JavaScript's that the sources use,
 * as `resolve` of `Promise` would be.
 */
const INTERNAL = [
  "handlers",
  "callbacks",
  "chain",
  "iterators",
  "iterate",
  "dispatch",
  "report",
  "held",
  "heard",
  "probing",
  "shut",
  "means",
];
INTERNAL.push(
  "over",
  "payload",
  "low",
  "high",
  "queued",
  "socket",
  "offer",
  "finish",
  "answer",
  "refuse",
  "abort",
  "timer",
);

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
mkdirSync(work, { recursive: true });

// What the engine exports is cut to a letter as well, in its binary and in what calls it.
const names = new Map(INTERNAL.map((name, index) => [name, letter(index)]));
const engine = small("current", []);
const bytes = readFileSync(engine);
copyFileSync(engine, join(folder, "etp-ws-client.wasm"));
// binaryen turns the instructions of the first WebAssembly alone into JavaScript.
const asJavaScript = plain(small("mvp", ["-Ctarget-cpu=mvp", "-Ctarget-feature=+mutable-globals"]));

for (const format of ["esm", "cjs"]) {
  await bundle("index", "inline", format);
  await bundle("separate", "separate", format);
  await bundle("nowasm", "nowasm", format);
}

published();

/** Everything else that is in the package. */
function published() {
  const manifest = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  const { private: _, devDependencies: __, ...rest } = manifest;
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(rest, undefined, 2)}\n`);
  for (const file of readdirSync(join(home, "types"))) {
    const types = readFileSync(join(home, "types", file), "utf8");
    writeFileSync(join(folder, file), types);
    // The same for `require`.
    writeFileSync(join(folder, file.replace(".ts", ".cts")), types.replaceAll('"./index.js"', '"./index.cjs"'));
  }
  copyFileSync(join(home, "README.md"), join(folder, "README.md"));
  copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
}

/** Compiles the engine with these features, and makes it small. */
function small(name, flags) {
  // Measured, as are the passes below: with less inlining than usual the whole is smallest.
  const rustflags = [...flags, "-Cllvm-args=-inline-threshold=33", "-Clink-arg=-zstack-size=32768"];
  // What is built says nothing of the machine that built it.
  for (const [path, name] of [
    [process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "cargo"],
    [root, "etp-ws"],
  ])
    rustflags.push(`--remap-path-prefix=${path}=${name}`);
  const target = join(work, name);
  execFileSync(
    "cargo",
    ["build", "--locked", "--profile", "wasm", "--target", "wasm32-unknown-unknown", "-p", "etp-ws-wasm"],
    {
      cwd: root,
      stdio: "inherit",
      env: { ...process.env, CARGO_TARGET_DIR: target, RUSTFLAGS: "", CARGO_ENCODED_RUSTFLAGS: rustflags.join("\x1f") },
    },
  );
  const module = binaryen.readBinary(readFileSync(join(target, "wasm32-unknown-unknown/wasm/etp_ws_wasm.wasm")));
  trapAtOnce(module);
  rename(module);
  const [raw, optimized] = [join(work, `${name}.raw.wasm`), join(work, `${name}.wasm`)];
  writeFileSync(raw, withoutPanicTexts(Buffer.from(module.emitBinary())));
  const lowered = ["--signext-lowering", "--llvm-memory-copy-fill-lowering", "--llvm-nontrapping-fptoint-lowering"];
  const features = ["mutable-globals", "sign-ext", "bulk-memory", "bulk-memory-opt", "nontrapping-float-to-int"];
  const passes = [
    "--low-memory-unused",
    "--converge",
    "-Oz",
    // Made anew from one flat sequence, it ends up smaller by a fiftieth.
    "--flatten",
    "--rereloop",
    "-Oz",
    "-Oz",
    "--reorder-functions",
    "--strip-debug",
    "--strip-producers",
    "--strip-target-features",
  ];
  run("wasm-opt", [
    ...features.map((feature) => `--enable-${feature}`),
    ...(name === "mvp" ? lowered : []),
    ...passes,
    raw,
    "-o",
    optimized,
  ]);
  return optimized;
}

/**
 * A panic is a trap, and there is nobody to tell what it would say: what says it goes, and the texts with it. That one is still
 * a trap is what keeps memory safe.
 */
function trapAtOnce(module) {
  for (let index = 0; index < module.getNumFunctions(); index += 1) {
    const f = module.getFunctionByIndex(index);
    const { name, base } = binaryen.getFunctionInfo(f);
    if (
      base === "" &&
      /panicking|slice_index_fail|handle_alloc_error|raw_vec12handle_error|capacity_overflow/.test(name)
    ) {
      binaryen.Function.setBody(f, module.unreachable());
    }
  }
}

/** Cuts the names of exports; what the linker adds for itself goes. */
function rename(module) {
  const exported = [];
  for (let index = 0; index < module.getNumExports(); index += 1) {
    exported.push(binaryen.getExportInfo(module.getExportByIndex(index)));
  }
  for (const { name, value } of exported.filter((one) => one.name !== "memory")) {
    module.removeExport(name);
    if (!name.startsWith("etp_")) continue;
    if (!names.has(name)) names.set(name, letter(names.size));
    module.addFunctionExport(value, names.get(name));
  }
}

function letter(index) {
  return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[index];
}

/** Nothing refers to these texts any more, but a linked module can't tell: they are made zeros, which compress to nothing. */
function withoutPanicTexts(wasm) {
  const texts = [
    /[\w./-]+\/src\/[\w./-]+\.rs/g,
    /(?:slice|range (?:start|end)) index (?:starts at )?| but ends at | ?out of range for slice of length |index out of bounds: the len is | but the index is /g,
    /memory allocation of | bytes failed|capacity overflow|Tried to shrink to a larger capacity|copy_from_slice: source slice length \(|\) does not match destination slice length \(/g,
    /00010203(?:\d\d)+9899/g,
  ];
  const text = wasm.toString("latin1");
  for (const pattern of texts)
    for (const found of text.matchAll(pattern)) wasm.fill(0, found.index, found.index + found[0].length);
  return wasm;
}

/** The engine as a function that answers what it exports. */
function plain(wasm) {
  const file = join(work, "mvp.js");
  run("wasm2js", ["-Oz", wasm, "-o", file]);
  const [body] = readFileSync(file, "utf8").split(/^export var /m);
  return `export default function () {\n${body}\nreturn retasmFunc;\n}`;
}

async function bundle(entry, way, format) {
  const source = entry === "separate" ? "separate.ts" : "index.ts";
  const outfile = join(folder, `${entry}.${format === "esm" ? "js" : "cjs"}`);
  await build({
    entryPoints: [join(home, "src", source)],
    outfile,
    bundle: true,
    sourcemap: true,
    // `const` as `let`, which is one word less.
    minifySyntax: true,
    format,
    // Classes with private fields, `??=`: browsers of 2022.
    target: "es2022",
    mangleProps: new RegExp(`^(${[...names.keys()].join("|")})$`),
    mangleCache: Object.fromEntries(names),
    plugins: [parts(way)],
  });
  const map = JSON.parse(readFileSync(`${outfile}.map`, "utf8"));
  map.sources = map.sources.map((one) => one.replace(/^.*?(?=src\/|built:)/, ""));
  const { code, map: minifiedMap } = await minify(readFileSync(outfile, "utf8"), {
    module: format === "esm",
    toplevel: true,
    // What consoles show.
    mangle: { reserved: ["Client", "EtpError"] },
    ecma: 2022,
    compress: { passes: 3, pure_getters: true, unsafe_arrows: true, unsafe_methods: true, keep_fargs: false },
    format: { comments: false },
    sourceMap: { content: map, url: `${entry}.${format === "esm" ? "js" : "cjs"}.map`, includeSources: true },
  });
  writeFileSync(outfile, code);
  writeFileSync(`${outfile}.map`, minifiedMap);
}

/** What stands for the modules of src/modules.d.ts. */
function parts(way) {
  return {
    name: "parts",
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^etp-ws-client-module$/ }, () => ({ path: join(home, "src/engine", `${way}.ts`) }));
      onResolve({ filter: /^etp-ws-client-(bytes|wasm2js)$/ }, ({ path }) => ({ path, namespace: "built" }));
      onLoad({ filter: /bytes/, namespace: "built" }, () => ({
        contents: `export default ${JSON.stringify(printable(bytes))};`,
      }));
      onLoad({ filter: /wasm2js/, namespace: "built" }, () => ({ contents: asJavaScript }));
    },
  };
}

/**
 * Bytes as text, for src/engine/inline.ts: one printable letter for each of 88 bytes, those of 4 below zero on, as they are the most
 * frequent; two for any other. Where base64 and hexadecimal are a fourth and a tenth larger than the bytes when both are
 * compressed, this is a hundredth: whole bytes stay whole letters.
 */
function printable(bytes) {
  let text = "";
  for (const byte of bytes) {
    const moved = (byte + 4) & 255;
    text += ["", "~", "}"][Math.floor(moved / 88)] + String.fromCharCode(35 + (moved % 88));
  }
  return text.replaceAll("\\", "!");
}

function run(tool, parameters) {
  execFileSync(join(tools, tool), parameters, { stdio: "inherit" });
}
