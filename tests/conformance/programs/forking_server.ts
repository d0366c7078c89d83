/** A forking server that says which children it has, for a test that kills it. */
import { ForkingTCPServer, formatAddress } from "@sockets/server";

const server = new ForkingTCPServer("tcp://127.0.0.1:0", new URL("../handlers/stream.ts", import.meta.url), { spareChildren: 3 });
await server.activate();
console.log(JSON.stringify({ listening: formatAddress(server.serverAddress), children: [...server.activeChildren] }));
await server.serveForever();
