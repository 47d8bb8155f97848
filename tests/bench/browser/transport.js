// The loopback in Node, in a process of its own: `node transport.js CONTESTANT SECONDS`. With `--cpu-prof` it tells where the time goes.

import { rate } from "./work.js";

const [contestant, seconds] = process.argv.slice(2);
console.log(await rate({ contestant, bytes: 4096, inFlight: 64, seconds: Number(seconds) }));
