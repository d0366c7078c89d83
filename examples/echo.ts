/**
 * Echo: sends back what it receives, over any transport.
 *
 *     deno run --allow-net=127.0.0.1 examples/echo.ts --listen tcp://127.0.0.1:9000 --concurrency async
 *     bun examples/echo.ts --listen udp://127.0.0.1:9000
 *     node examples/echo.ts --listen unix:/tmp/echo.sock
 *     bun examples/echo.ts --listen tcp://127.0.0.1:9000 --replicas 4
 *     node examples/echo.ts --listen tcp://127.0.0.1:9000 --proxy-protocol    (behind a load balancer: see haproxy.cfg)
 *
 * Then talk to it: `nc 127.0.0.1 9000`, `nc -u 127.0.0.1 9000`, `nc -U /tmp/echo.sock`,
 * `socat - UNIX-SENDTO:/tmp/echo.dgram,bind=/tmp/me.dgram`.
 *
 * What Deno has to allow for the other transports, and for handlers elsewhere:
 *
 *     deno run --allow-net=127.0.0.1 examples/echo.ts --listen udp://127.0.0.1:9000
 *     deno run --allow-net=unix:/tmp/echo.sock --allow-read=/tmp --allow-write=/tmp examples/echo.ts --listen unix:/tmp/echo.sock
 *     deno run --allow-ffi --allow-read=/tmp --allow-write=/tmp examples/echo.ts --listen unixgram:/tmp/echo.dgram
 *     deno run --allow-net=127.0.0.1 --allow-read=. examples/echo.ts --listen tcp://127.0.0.1:9000 --concurrency threading
 *     deno run --allow-net=127.0.0.1 --allow-read=. --allow-env --allow-run=deno examples/echo.ts --listen tcp://127.0.0.1:9000 --concurrency forking
 *     deno run --allow-net=127.0.0.1 --allow-read=. --allow-env --allow-run=deno examples/echo.ts --listen tcp://127.0.0.1:9000 --replicas 2
 *
 * `systemd/` has units that start it when the first client connects.
 */
import { parseArgs } from "node:util";
import {
  type Address,
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixDatagramServer,
  AsyncUnixStreamServer,
  BaseRequestHandler,
  type BaseServer,
  type Datagram,
  ForkingTCPServer,
  ForkingUDPServer,
  ForkingUnixDatagramServer,
  ForkingUnixStreamServer,
  formatAddress,
  handleSignals,
  listenFds,
  notify,
  parseAddress,
  Replicas,
  type ReplicaServerOptions,
  TCPServer,
  ThreadingTCPServer,
  ThreadingUDPServer,
  ThreadingUnixDatagramServer,
  ThreadingUnixStreamServer,
  UDPServer,
  UnixDatagramServer,
  UnixStreamServer,
  watchdog,
} from "../mod.ts";

export class StreamEcho extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

export class DatagramEcho extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    const { address, data, socket } = this.request;
    if (address === null || !mayAnswer(address, socket.address)) return;
    return this.request.reply(data);
  }
}

/** The ports below are those of the system's services (RFC 6335). */
const FIRST_USER_PORT = 1024;

/**
 * Whether a datagram may be answered. Its sender may be forged, and what answers everything can be made to answer itself, or another
 * service that answers everything, for ever. So there is no answer to this server's own port, on whatever machine, nor to the system's
 * services, as with the echo of inetd.
 */
function mayAnswer(address: Address, own: Address): boolean {
  if (!("port" in address) || !("port" in own)) return formatAddress(address) !== formatAddress(own);
  return address.port >= FIRST_USER_PORT && address.port !== own.port;
}

/** The server classes, by what is asked for on the command line. */
const SERVERS = {
  sequential: { tcp: TCPServer, udp: UDPServer, unix: UnixStreamServer, unixgram: UnixDatagramServer },
  async: { tcp: AsyncTCPServer, udp: AsyncUDPServer, unix: AsyncUnixStreamServer, unixgram: AsyncUnixDatagramServer },
  threading: {
    tcp: ThreadingTCPServer,
    udp: ThreadingUDPServer,
    unix: ThreadingUnixStreamServer,
    unixgram: ThreadingUnixDatagramServer,
  },
  forking: { tcp: ForkingTCPServer, udp: ForkingUDPServer, unix: ForkingUnixStreamServer, unixgram: ForkingUnixDatagramServer },
};

// deno-lint-ignore no-explicit-any
type AnyServer = new (...args: any[]) => BaseServer<any>;

/** The server for an address. */
export function echoServer(address: Address, concurrency: string, options: object = {}): InstanceType<AnyServer> {
  if (!Object.hasOwn(SERVERS, concurrency)) {
    throw new TypeError(`--concurrency takes ${Object.keys(SERVERS).join(", ")}, got ${concurrency}`);
  }
  const Server: AnyServer = SERVERS[concurrency as keyof typeof SERVERS][address.transport];
  const stream = address.transport === "tcp" || address.transport === "unix";
  const Handler = stream ? StreamEcho : DatagramEcho;
  const elsewhere = concurrency === "threading" || concurrency === "forking";
  // A thread or a process finds the class in this module.
  const handler = elsewhere ? new URL(`#${Handler.name}`, import.meta.url) : Handler;
  // As large as UDP's largest datagram.
  return new Server(address, handler, { ...options, ...(stream ? {} : { maxPacketSize: 65_507 }) });
}

/** The server of a replica. */
export function echoReplica(address: Address, options: ReplicaServerOptions): InstanceType<AnyServer> {
  return echoServer(address, options.data as string, options);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", default: "tcp://127.0.0.1:0" },
      concurrency: { type: "string", default: "async" },
      replicas: { type: "string" },
      "proxy-protocol": { type: "boolean", default: false },
    },
  });
  const { listen, concurrency, replicas, "proxy-protocol": proxyProtocol } = values;
  // A socket that systemd has passed stands in for the address.
  const [inherited] = listenFds();
  const server = replicas === undefined
    ? echoServer(parseAddress(listen), concurrency, { fd: inherited?.fd, ...(proxyProtocol ? { proxyProtocol } : {}) })
    : new Replicas(listen, new URL("#echoReplica", import.meta.url), { count: Number(replicas), data: concurrency });
  await server.activate();
  console.log(`listening ${formatAddress(server.serverAddress)}`);
  handleSignals(server, { drain: 1000 });
  // For a unit of Type=notify, with WatchdogSec=; nothing otherwise.
  await notify({ ready: true });
  watchdog();
  await server.serveForever();
  await server.serverClose();
}

if (import.meta.main) {
  main().catch((error) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}
