/** Handlers for datagrams that the tests run in threads and processes. */
import { existsSync } from "node:fs";
import { BaseRequestHandler, type Datagram, DatagramRequestHandler, parseAddress, SystemExit } from "@sockets/server";

export default class Echo extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    return this.request.reply(this.request.data);
  }
}

export class Lines extends DatagramRequestHandler {
  override async handle(): Promise<void> {
    if (this.request.truncated) await this.wfile.write("cut ");
    for await (const line of this.rfile) await this.wfile.write(`<${line}>`);
  }
}

/** Never comes to an end. */
export class Endless extends BaseRequestHandler<Datagram> {
  override handle(): Promise<void> {
    return new Promise(() => {});
  }
}

/** Throws what it is sent, or answers more than a datagram can hold. */
export class Fails extends BaseRequestHandler<Datagram> {
  override async handle(): Promise<void> {
    const text = new TextDecoder().decode(this.request.data);
    if (text === "throw") throw new RangeError("a handler's own");
    await this.request.reply(text === "long" ? new Uint8Array(1 << 20) : text);
  }
}

let last: Uint8Array | null = null;

/** Does what the datagram says. */
export class Commands extends BaseRequestHandler<Datagram> {
  override async handle(): Promise<void> {
    const { data, socket, address } = this.request;
    const [command, argument] = new TextDecoder().decode(data).split(" ");
    switch (command) {
      case "who":
        return await socket.send(JSON.stringify([this.clientAddress, address, socket.address]), this.clientAddress!);
      case "tell":
        return await socket.send("told", parseAddress(argument!));
      case "keep": {
        const was = last;
        last = data;
        data.fill(7); // before the reply, which the client answers with the next
        return await this.request.reply(JSON.stringify([data.constructor.name, data.length, was === null ? null : [...was]]));
      }
      case "compute":
        // Awaits nothing, until the test has made a file.
        while (!existsSync(argument!));
        return await this.request.reply("computed");
      case "answer":
        await this.request.reply("begun");
        // Until the test has made a file.
        while (!existsSync(argument!)) await new Promise((resolve) => setTimeout(resolve, 1));
        await this.request.reply("awaited");
        return void this.request.reply("not awaited");
      case "many":
        for (let i = 0; i < 500; i++) await this.request.reply("reply");
        return;
      case "ignore":
        await this.request.reply("ignoring");
        return new Promise(() => {});
      case "system-exit":
        throw new SystemExit(3);
      default:
        return await this.request.reply(data);
    }
  }
}
