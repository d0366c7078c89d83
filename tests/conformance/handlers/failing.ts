import { BaseRequestHandler, connect, type Datagram, StreamRequestHandler } from "@sockets/server";

/** Fails in the way that the first line says. */
export default class Failing extends StreamRequestHandler {
  override async handle(): Promise<void> {
    const [command, argument] = (await this.rfile.readLine())!.split(" ");
    await this.wfile.write("+");
    switch (command) {
      case "read":
        return void await this.rfile.readUntil("\n");
      case "write":
        for (;;) await this.wfile.write(new Uint8Array(65_536));
      case "slow":
        this.request.timeout = 30;
        return void await this.rfile.readLine();
      case "limit":
        return void await this.rfile.readLine({ limit: 16 });
      case "refused":
        await connect(argument!);
        return;
      case "elsewhere": {
        const other = await connect(argument!);
        other.timeout = 30;
        try {
          await other.read();
        } finally {
          other.abort();
        }
        return;
      }
      case "ended":
        await this.request.closeWrite();
        return void await this.wfile.write("more");
      case "exhausted":
        throw Object.assign(new Error("open EMFILE: too many open files"), { code: "EMFILE" });
      case "bug":
        throw new TypeError("a bug", { cause: new Error("what caused it") });
      case "forge":
        throw new Error(`\x1b[2J\u202e\nfake: tcp://192.0.2.1:80: all is well\r\n`);
    }
  }
}

/** Replies, with as many bytes as the datagram says. */
export class FailingReply extends BaseRequestHandler<Datagram> {
  override handle(): void | Promise<void> {
    return this.request.reply(new Uint8Array(Number(new TextDecoder().decode(this.request.data))));
  }
}
