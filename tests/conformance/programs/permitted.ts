/** Does one thing that a runtime's permissions may refuse, and prints the error as JSON, or `null`. */
import {
  AsyncTCPServer,
  AsyncUDPServer,
  AsyncUnixDatagramServer,
  AsyncUnixStreamServer,
  BaseRequestHandler,
  type BaseServer,
  bind,
  connect,
  ForkingTCPServer,
} from "@sockets/server";

class Handler extends BaseRequestHandler<never> {}

const [what, address, to] = process.argv.slice(2) as [string, string, string];

async function serve(server: Pick<BaseServer, "activate" | "serverClose">): Promise<void> {
  await server.activate();
  await server.serverClose();
}

const OPERATIONS: Record<string, () => Promise<void>> = {
  tcp: () => serve(new AsyncTCPServer(address, Handler as never)),
  "tcp by family": () => serve(new AsyncTCPServer(address, Handler as never, { addressFamily: "IPv4" })),
  tls: () => serve(new AsyncTCPServer(address, Handler as never, { tls: { cert: to, key: to } })),
  udp: () => serve(new AsyncUDPServer(address, Handler)),
  unix: () => serve(new AsyncUnixStreamServer(address, Handler as never)),
  unixgram: () => serve(new AsyncUnixDatagramServer(address, Handler)),
  forking: () => serve(new ForkingTCPServer(address, new URL("../handlers/stream.ts", import.meta.url))),
  async connect() {
    const connection = await connect(address);
    await connection.close();
  },
  async send() {
    const socket = await bind(address);
    try {
      await socket.send("x", to);
    } finally {
      await socket.close();
    }
  },
};

try {
  await OPERATIONS[what]!();
  console.log("null");
} catch (error) {
  const { name, code, message, cause } = error as Error & { code?: string };
  console.log(JSON.stringify({ name, code, message, cause: (cause as Error | undefined)?.name }));
}
