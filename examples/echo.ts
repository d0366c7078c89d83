/**
 * Echo: sends back what it receives, over any transport.
 *
 *     deno run -A examples/echo.ts --listen tcp://127.0.0.1:9000 --concurrency async
 *     bun examples/echo.ts --listen udp://127.0.0.1:9000
 *     node examples/echo.ts --listen unix:/tmp/echo.sock
 *     deno run -A examples/echo.ts --listen unixgram:/tmp/echo.dgram
 *
 * Then talk to it: `nc 127.0.0.1 9000`, `nc -u 127.0.0.1 9000`, `nc -U /tmp/echo.sock`,
 * `socat - UNIX-SENDTO:/tmp/echo.dgram,bind=/tmp/me.dgram`.
 */
import { parseArgs } from "node:util";
import {
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixDatagramServer,
  AsyncUnixStreamServer,
  BaseRequestHandler,
  type Datagram,
  formatAddress,
  parseAddress,
  TCPServer,
  UDPServer,
  UnixDatagramServer,
  UnixStreamServer,
} from "../mod.ts";

export class StreamEcho extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

export class DatagramEcho extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    return this.request.reply(this.request.data);
  }
}

const MODES = ["sequential", "async"];
const [SEQUENTIAL] = MODES;

/** The server for an address; `maxPacketSize` lets UDP's largest datagram through. */
export function echoServer(listen: string, concurrency: string): TCPServer | UDPServer {
  if (!MODES.includes(concurrency)) throw new TypeError(`--concurrency takes ${MODES.join(" or ")}, got ${concurrency}`);
  const address = parseAddress(listen);
  const plain = concurrency === SEQUENTIAL;
  const maxPacketSize = 65_507;
  switch (address.transport) {
    case "tcp":
      return new (plain ? TCPServer : AsyncTCPServer)(address, StreamEcho);
    case "unix":
      return new (plain ? UnixStreamServer : AsyncUnixStreamServer)(address, StreamEcho);
    case "udp":
      return new (plain ? UDPServer : AsyncUDPServer)(address, DatagramEcho, { maxPacketSize });
    case "unixgram":
      return new (plain ? UnixDatagramServer : AsyncUnixDatagramServer)(address, DatagramEcho, { maxPacketSize });
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", default: "tcp://127.0.0.1:0" },
      concurrency: { type: "string", default: "async" },
    },
  });
  const server = echoServer(values.listen, values.concurrency);
  await server.activate();
  console.log(`listening ${formatAddress(server.serverAddress)}`);
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => void server.shutdown({ drain: 1000 }));
  }
  await server.serveForever();
  await server.serverClose();
}

if (import.meta.main) {
  main().catch((error) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}
