/** This package's servers with handlers in workers and on the event loop: `ours_workers.ts MODE HANDLER`, see handlers.ts. */
import { AsyncTCPServer, ForkingTCPServer, formatAddress, ThreadingTCPServer } from "../../mod.ts";
import * as handlers from "./handlers.ts";

const [mode, name] = process.argv.slice(2) as ["async" | "threading" | "forking", keyof typeof handlers];
const module = new URL(`./handlers.ts#${name}`, import.meta.url);
const address = "tcp://127.0.0.1:0";
const makers = {
  async: () => new AsyncTCPServer(address, handlers[name]),
  threading: () => new ThreadingTCPServer(address, module, { maxThreads: 2, spareThreads: 2 }),
  forking: () => new ForkingTCPServer(address, module, { maxChildren: 4, spareChildren: 4, requestsPerChild: Infinity }),
};
const server = makers[mode]();
await server.activate();
console.log(`listening ${formatAddress(server.serverAddress)}`);
await server.serveForever();
