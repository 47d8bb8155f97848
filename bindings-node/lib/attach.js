// Connections that came to an `http.Server`: plain sockets are handed to the core, of others the bytes are carried.
"use strict";

const net = require("node:net");
const { EtpError } = require("./error.js");
const { bridges, call, keep, forget, native } = require("./environment.js");

/** Which paths of an `http.Server` are whose. */
const attachments = new WeakMap();
/** Sockets that were handed to us before: whoever does it again has nothing to give. */
const taken = new WeakSet();

function attach(httpServer, path, take) {
  let paths = attachments.get(httpServer);
  if (paths === undefined) {
    paths = new Map();
    attachments.set(httpServer, paths);
    const listener = (request, socket, head) => {
      const url = request.url ?? "";
      const at = url.indexOf("?");
      const found = paths.get(at < 0 ? url : url.slice(0, at));
      if (found !== undefined) found(request, socket, head);
      // Somebody else's path, if there is anybody.
      else if (httpServer.listenerCount("upgrade") === 1) refuse(socket, 404, "Not Found");
    };
    paths.listener = listener;
    httpServer.on("upgrade", listener);
  }
  if (paths.has(path)) {
    throw new EtpError("invalid_state", `a server is attached to ${JSON.stringify(path)} of this http.Server already`);
  }
  paths.set(path, take);
  return () => {
    paths.delete(path);
    if (paths.size > 0) return;
    // Upgrades are the application's again.
    httpServer.off("upgrade", paths.listener);
    attachments.delete(httpServer);
  };
}

function refuse(socket, status, reason) {
  socket.on("error", () => {});
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const body = `${reason}\n`;
  const head = `HTTP/1.1 ${status} ${reason}\r\nConnection: close\r\nContent-Type: text/plain\r\n`;
  socket.end(`${head}Content-Length: ${body.length}\r\n\r\n${body}`, () => socket.destroySoon?.());
}

/** The descriptor of a socket that the core can have to itself, or -1. */
function descriptor(socket) {
  // Only Node's own kind of socket is known to leave the descriptor alone from here on.
  if (process.platform === "win32" || process.versions.bun !== undefined || process.versions.deno !== undefined)
    return -1;
  if (Object.getPrototypeOf(socket) !== net.Socket.prototype || socket.encrypted) return -1;
  const handle = socket._handle;
  if (typeof handle?.fd !== "number" || handle.fd < 0 || typeof handle.readStop !== "function") return -1;
  // What JavaScript has yet to write can't be handed over, nor what it has decoded.
  return socket.writableLength > 0 || socket.readableEncoding !== null ? -1 : handle.fd;
}

/** What the socket has read behind the request's head. */
function leftover(socket, head) {
  const read = [head];
  for (let more = socket.read(); more !== null; more = socket.read()) read.push(more);
  return Buffer.concat(read);
}

/** Hands a connection to the core; resolves whether it was let in. */
async function adopt(siteId, request, socket, head) {
  if (socket.destroyed || !socket.writable || taken.has(socket)) return false;
  taken.add(socket);
  const { method, url, httpVersion, rawHeaders } = request;
  const { remoteAddress: address, remotePort: port } = socket;
  const incoming = keep(request);
  const fd = descriptor(socket);
  try {
    if (fd < 0) {
      return (await bridge(siteId, request, socket, head, incoming, address, port)) === 1;
    }
    const accepted = call((id) => {
      // Nothing more may be read here: what comes from now on is the core's.
      socket._handle.readStop();
      const rest = leftover(socket, head);
      native.adopt(siteId, id, method, url, httpVersion, rawHeaders, address, port, incoming, fd, rest);
      socket.destroy();
    });
    return (await accepted) === 1;
  } catch (error) {
    if (!socket.destroyed) refuse(socket, 400, "Bad Request");
    throw error;
  } finally {
    forget(incoming);
  }
}

let lastBridge = 0;

function bridge(siteId, request, socket, head, incoming, address, port) {
  do lastBridge = (lastBridge + 1) & 0x7fffffff;
  while (bridges.has(lastBridge));
  const number = lastBridge;
  return call((id) => {
    const rest = leftover(socket, head);
    const { method, url, httpVersion, rawHeaders } = request;
    native.bridge(siteId, id, method, url, httpVersion, rawHeaders, address, port, incoming, number, rest);
    bridges.set(number, socket);
    // When the peer ends its direction the core decides what it is still told.
    socket.allowHalfOpen = true;
    socket.on("data", (bytes) => {
      if (!native.bridgeRead(number, bytes)) socket.pause();
    });
    socket.on("end", () => native.bridgeReadEnd(number));
    socket.on("close", () => {
      bridges.delete(number);
      native.bridgeEnd(number);
    });
    socket.setTimeout?.(0);
    socket.resume();
  });
}

module.exports = { adopt, attach, refuse };
