// A WebSocket without a socket: whatever is sent comes back as its acknowledgment, in a microtask.

export class Loopback {
  readyState = 0;
  bufferedAmount = 0;

  constructor(url) {
    this.url = url;
    setTimeout(() => {
      this.readyState = 1;
      this.onopen({});
    });
  }

  send(frame) {
    // A message's event tells its time, as those of a browser do.
    queueMicrotask(() => this.onmessage({ data: `__ack_${frame}`, timeStamp: 1 }));
  }

  close(code = 1005, reason = "") {
    this.readyState = 2;
    setTimeout(() => {
      this.readyState = 3;
      this.onclose({ code, reason, wasClean: true });
    });
  }
}
