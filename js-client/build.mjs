// Builds the package that is published in a folder: `node build.mjs FOLDER`. The engine is compiled from bindings-wasm, made small by binaryen,
// and put into each entry in its own way: within the file, beside it, or as plain JavaScript.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import binaryen from "binaryen";
import { build } from "esbuild";

const home = dirname(fileURLToPath(import.meta.url));
const root = dirname(home);
const folder = resolve(process.argv[2]);
const work = join(root, "target", "wasm");
const tools = join(home, "node_modules", ".bin");

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
mkdirSync(work, { recursive: true });

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
  // The inlining of rustc is for speed. Here a call is shorter, and binaryen inlines what is called once.
  const rustflags = [...flags, "-Cllvm-args=-inline-threshold=0", "-Clink-arg=-zstack-size=32768"];
  const target = join(work, name);
  execFileSync("cargo", ["build", "--locked", "--profile", "wasm", "--target", "wasm32-unknown-unknown", "-p", "etp-ws-wasm"], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, CARGO_TARGET_DIR: target, RUSTFLAGS: "", CARGO_ENCODED_RUSTFLAGS: rustflags.join("\x1f") },
  });
  const module = binaryen.readBinary(readFileSync(join(target, "wasm32-unknown-unknown/wasm/etp_ws_wasm.wasm")));
  trapAtOnce(module);
  for (const marker of ["__data_end", "__heap_base"]) module.removeExport(marker);
  const [raw, optimized] = [join(work, `${name}.raw.wasm`), join(work, `${name}.wasm`)];
  writeFileSync(raw, module.emitBinary());
  const lowered = ["--signext-lowering", "--llvm-memory-copy-fill-lowering", "--llvm-nontrapping-fptoint-lowering"];
  const features = ["mutable-globals", "sign-ext", "bulk-memory", "bulk-memory-opt", "nontrapping-float-to-int"];
  const passes = ["-Oz", "--converge", "--low-memory-unused", "--strip-debug", "--strip-producers", "--strip-target-features"];
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
    if (base === "" && /panicking|slice_index_fail|handle_alloc_error|raw_vec12handle_error|capacity_overflow/.test(name)) {
      binaryen.Function.setBody(f, module.unreachable());
    }
  }
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
  await build({
    entryPoints: [join(home, "src", source)],
    outfile: join(folder, `${entry}.${format === "esm" ? "js" : "cjs"}`),
    bundle: true,
    minify: true,
    sourcemap: true,
    sourcesContent: true,
    format,
    // Classes with private fields, `??=`: browsers of 2022.
    target: "es2022",
    legalComments: "none",
    plugins: [parts(way)],
  });
}

/** What stands for the modules of src/modules.d.ts. */
function parts(way) {
  return {
    name: "parts",
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^etp-ws-client-module$/ }, () => ({ path: join(home, "src/engine", `${way}.ts`) }));
      onResolve({ filter: /^etp-ws-client-(bytes|wasm2js)$/ }, ({ path }) => ({ path, namespace: "built" }));
      onLoad({ filter: /bytes/, namespace: "built" }, () => ({ contents: `export default ${JSON.stringify(bytes.toString("hex"))};` }));
      onLoad({ filter: /wasm2js/, namespace: "built" }, () => ({ contents: asJavaScript }));
    },
  };
}

function run(tool, parameters) {
  execFileSync(join(tools, tool), parameters, { stdio: "inherit" });
}
