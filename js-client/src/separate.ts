export { load } from "./engine/separate.js";
export * from "./index.js";
