/** A server that echoes lines, but hands the request over on "fork" and "spawnThread"; it prints its errors. */
import { AsyncTCPServer, formatAddress, handleSignals, StreamRequestHandler } from "@sockets/server";

export class Rest extends StreamRequestHandler {
  override async handle(): Promise<void> {
    await this.wfile.write("done elsewhere\n");
  }
}

class Dispatcher extends StreamRequestHandler {
  override async handle(): Promise<void> {
    for await (const line of this.rfile) {
      if (line === "fork" || line === "spawnThread") return this[line](new URL("#Rest", import.meta.url));
      await this.wfile.write(line + "\n");
    }
  }
}

// A worker loads this module too.
if (import.meta.main) {
  const server = new AsyncTCPServer("tcp://127.0.0.1:0", Dispatcher);
  server.handleError = (_request, _clientAddress, error) => console.log(`error: ${error}`.split("\n", 1)[0]);
  await server.activate();
  console.log(`listening ${formatAddress(server.serverAddress)}`);
  handleSignals(server, { drain: 0 });
  await server.serveForever();
}
