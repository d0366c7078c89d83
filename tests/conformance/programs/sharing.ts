/** An echo server that shares its port with others (SO_REUSEPORT), until it is told to end: `sharing.ts PORT`. */
import { AsyncTCPServer, formatAddress, handleSignals } from "@sockets/server";
import { EchoHandler } from "../serving.ts";

const server = new AsyncTCPServer(`tcp://127.0.0.1:${process.argv[2]}`, EchoHandler, { allowReusePort: true });
await server.activate();
handleSignals(server);
console.log(`listening ${formatAddress(server.serverAddress)}`);
await server.serveForever();
