/** A server whose handlers run in threads or processes, for a test that kills it: `worker_server.ts threading|forking [OPTIONS as JSON]`. */
import { ForkingTCPServer, formatAddress, ThreadingTCPServer } from "@sockets/server";

const [mode, options = "{}"] = process.argv.slice(2);
const handler = new URL("../handlers/faults.ts", import.meta.url);
const server = mode === "threading"
  ? new ThreadingTCPServer("tcp://127.0.0.1:0", handler, JSON.parse(options))
  : new ForkingTCPServer("tcp://127.0.0.1:0", handler, JSON.parse(options));
await server.activate();
const children = "activeChildren" in server ? [...server.activeChildren] : [];
console.log(JSON.stringify({ listening: formatAddress(server.serverAddress), children }));
await server.serveForever();
