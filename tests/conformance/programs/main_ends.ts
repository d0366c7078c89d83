/** A program whose main part ends while a request is in progress: `main_ends.ts threading|forking ADDRESS [OPTIONS as JSON]`. */
import {
  ForkingTCPServer,
  ForkingUnixStreamServer,
  formatAddress,
  ThreadingTCPServer,
  ThreadingUnixStreamServer,
} from "@sockets/server";

const [mode, address, options = "{}"] = process.argv.slice(2);
const SERVERS = {
  threading: { tcp: ThreadingTCPServer, unix: ThreadingUnixStreamServer },
  forking: { tcp: ForkingTCPServer, unix: ForkingUnixStreamServer },
};
const Server = SERVERS[mode as "threading"][address!.startsWith("unix:") ? "unix" : "tcp"];
const handler = new URL("../handlers/faults.ts", import.meta.url);
const server = new Server(address!, handler, { blockOnClose: false, ...JSON.parse(options) });
await server.activate();
console.log(formatAddress(server.serverAddress));
const served = server.serveForever();
while (server.stats.active === 0) await new Promise((resolve) => setTimeout(resolve, 1));
await server.shutdown();
await served;
await server.serverClose();
console.log("main has ended");
