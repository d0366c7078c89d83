/** This package's AsyncTCPServer with a handler class: `ours_handlers.ts echo|attacked|lines|once|sink|source [RATE]`. */
import { AsyncTCPServer, BaseRequestHandler, formatAddress, SocketError, StreamRequestHandler } from "../../mod.ts";

/** Sends back what comes, through `rfile` and `wfile`. */
class echo extends StreamRequestHandler {
  override async handle(): Promise<void> {
    for (let chunk = await this.rfile.read(); chunk !== null; chunk = await this.rfile.read()) await this.wfile.write(chunk);
  }
}

/** Sends back what comes; who sends a single byte is done. */
class attacked extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) {
      await this.request.write(chunk);
      if (chunk.length === 1) return;
    }
  }
}

/** Sends back line by line. */
class lines extends StreamRequestHandler {
  override async handle(): Promise<void> {
    for (let line = await this.rfile.readLine(); line !== null; line = await this.rfile.readLine()) {
      await this.wfile.write(line + "\n");
    }
  }
}

/** Sends back one line and closes. */
class once extends StreamRequestHandler {
  override async handle(): Promise<void> {
    const line = await this.rfile.readLine();
    if (line !== null) await this.wfile.write(line + "\n");
  }
}

/** Reads and forgets. */
class sink extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const _ of this.request);
  }
}

/** Writes for as long as the peer reads. */
class source extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const bytes = new Uint8Array(65_536);
    for (;;) await this.request.write(bytes);
  }
}

const handlers = { echo, attacked, lines, once, sink, source };

class Server extends AsyncTCPServer {
  override handleError(...args: Parameters<AsyncTCPServer["handleError"]>): void | Promise<void> {
    // The load generator resets its connections.
    if (!(args[2] instanceof SocketError)) return super.handleError(...args);
  }
}

const [mode, rate = Infinity] = process.argv.slice(2);
const server = new Server("tcp://127.0.0.1:0", handlers[mode as keyof typeof handlers], {
  requestQueueSize: 4096,
  maxConnectionRatePerAddress: Number(rate),
});
await server.activate();
console.log(`listening ${formatAddress(server.serverAddress)}`);
await server.serveForever();
