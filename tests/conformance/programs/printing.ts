/** Serves until SIGTERM, with the default `handleError`; the argument is the mode. */
import { AsyncTCPServer, ForkingTCPServer, formatAddress, handleSignals, ThreadingTCPServer } from "../../../mod.ts";
import { PrintingHandler } from "../handlers/printing.ts";

const handler = new URL("../handlers/printing.ts#PrintingHandler", import.meta.url);
const address = "tcp://127.0.0.1:0";
const server = process.argv[2] === "async"
  ? new AsyncTCPServer(address, PrintingHandler)
  : process.argv[2] === "threading"
  ? new ThreadingTCPServer(address, handler, { maxThreads: 2 })
  : new ForkingTCPServer(address, handler, { maxChildren: 2 });
await server.activate();
console.log(formatAddress(server.serverAddress));
handleSignals(server, { drain: 1000 });
await server.serveForever();
await server.serverClose();
console.log("over");
console.error("over");
