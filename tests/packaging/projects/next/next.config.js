export default {
  // The one line: the binary stays in node_modules, outside of the bundle.
  serverExternalPackages: ["etp-ws"],
};
