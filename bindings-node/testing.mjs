// What `import` gives: the same function as `require`.
import testing from "./testing.js";

export const { connect } = testing;
