/**
 * Opens what the test names, takes it off what keeps the program running, and has nothing else to do: the program ends. With "ref" it is
 * put back, and the program goes on until it is asked something.
 */
import {
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixDatagramServer,
  AsyncUnixStreamServer,
  BaseRequestHandler,
  bind,
  connect,
  type Connection,
  type Datagram,
  ForkingTCPServer,
  formatAddress,
  ThreadingTCPServer,
} from "@sockets/server";
import { freshPath } from "../adapters.ts";
import { certificate } from "../certificates.ts";

/** Longer than the test waits. */
const LONG = 600_000;

class Answer extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write("!");
    process.exit(7);
  }
}

class AnswerDatagram extends BaseRequestHandler<Datagram> {
  override handle(): void {
    process.exit(7);
  }
}

const [what, way, peer] = process.argv.slice(2);
const worker = new URL("../handlers/unreferenced.ts", import.meta.url);

/** What can be taken off, in the state in which it is. */
async function open(): Promise<{ unref(): void; ref(): void }> {
  switch (what) {
    case "client":
    case "unix client":
    case "tls client":
    case "client that reads":
    case "client that has read": {
      const tls = what === "tls client" ? { rejectUnauthorized: false, servername: "localhost" } : false;
      const conn: Connection = await connect(peer!, { tls });
      conn.timeout = LONG;
      if (what === "client that has read") await conn.read();
      else if (what !== "client") void conn.read();
      if (what === "unix client") void conn.closed;
      return conn;
    }
    case "socket":
    case "unix socket":
    case "socket with buffer sizes":
    case "socket that receives": {
      const sizes = what === "socket with buffer sizes" ? { receiveBufferSize: 65_536 } : {};
      const socket = await bind(what === "unix socket" ? "unixgram:" : "udp://127.0.0.1:0", sizes);
      socket.timeout = what === "socket that receives" ? LONG : 0;
      if (what !== "socket") void socket.receive();
      return socket;
    }
    default: {
      const tcp = "tcp://127.0.0.1:0";
      const server = {
        "server": () => new AsyncTCPServer(tcp, Answer),
        "server with connections": () => new AsyncTCPServer(tcp, Answer),
        "unix server": () => new AsyncUnixStreamServer(`unix:${freshPath()}`, Answer),
        "tls server": () => new AsyncTCPServer("tls://127.0.0.1:0", Answer, { tls: certificate("localhost") }),
        "udp server": () => new AsyncUDPServer("udp://127.0.0.1:0", AnswerDatagram),
        "unixgram server": () => new AsyncUnixDatagramServer(`unixgram:${freshPath()}`, AnswerDatagram),
        "threads": () => new ThreadingTCPServer(tcp, worker, { spareThreads: 2 }),
        "children": () => new ForkingTCPServer(tcp, worker, { spareChildren: 2 }),
        "handleRequest()": () => new AsyncTCPServer(tcp, Answer, { timeout: LONG }),
      }[what!]!();
      await server.activate();
      void (what === "handleRequest()" ? server.handleRequest() : server.serveForever());
      console.log(formatAddress(server.serverAddress));
      return server;
    }
  }
}

const opened = await open();
opened.unref();
if (way === "ref") opened.ref();
console.log("done");
