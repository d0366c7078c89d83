/**
 * Echo: sends back what it receives.
 *
 *     deno run -A examples/echo.ts --listen tcp://127.0.0.1:9000 --concurrency async
 *     bun examples/echo.ts --listen tcp://127.0.0.1:9000
 *     node examples/echo.ts --listen tcp://127.0.0.1:9000
 *
 * Then talk to it: `nc 127.0.0.1 9000`.
 */
import { parseArgs } from "node:util";
import { AsyncTCPServer, BaseRequestHandler, formatAddress, TCPServer } from "../mod.ts";

export class EchoHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** The server classes by the name of their concurrency. */
const SERVERS = { sequential: TCPServer, async: AsyncTCPServer };

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", default: "tcp://127.0.0.1:0" },
      concurrency: { type: "string", default: "async" },
    },
  });
  if (!Object.hasOwn(SERVERS, values.concurrency)) {
    throw new TypeError(`--concurrency takes ${Object.keys(SERVERS).join(" or ")}, got ${values.concurrency}`);
  }
  const Server = SERVERS[values.concurrency as keyof typeof SERVERS];
  const server = new Server(values.listen, EchoHandler);
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
