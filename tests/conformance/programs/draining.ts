/** A program that handles signals, with requests that end when told, never by themselves, or that leave signals alone. */
import { AsyncTCPServer, formatAddress, handleSignals, StreamRequestHandler } from "../../../mod.ts";

class Handler extends StreamRequestHandler {
  override async handle(): Promise<void> {
    const { drainSignal } = this.server;
    const manner = await this.rfile.readLine();
    if (manner === "dispose") signals[Symbol.dispose]();
    await this.wfile.write("ready\n");
    await new Promise((resolve) => drainSignal.addEventListener("abort", resolve));
    if (manner === "polite") return void await this.wfile.write("bye\n");
    console.log("draining");
    await new Promise((resolve) => this.request.signal.addEventListener("abort", resolve));
  }
}

const server = new AsyncTCPServer("tcp://127.0.0.1:0", Handler);
await server.activate();
const signals = handleSignals(server, { drain: 60_000 });
console.log(formatAddress(server.serverAddress));
await server.serveForever();
await server.serverClose();
