// Names of what is inside users' objects: nothing that they write or override on them can be meant.
"use strict";

const names = ["site", "slot", "generation", "ownData", "knownId", "knownRequest", "lastRooms", "end", "watch"].concat(
  ["watched", "closing", "ended", "forgotten", "closedError", "upgraded", "disconnected", "siteEnded", "asked"],
  ["siteId", "isReferenced", "connectTo", "connected"],
);

module.exports = Object.fromEntries(names.map((name) => [name, Symbol(`etp-ws ${name}`)]));
