/** Does what it is told and awaits nothing of it, until the connection is gone; answers with the number of its worker. */
import { StreamReader, StreamRequestHandler } from "@sockets/server";
import { threadId } from "node:worker_threads";

const LARGE = new Uint8Array(8 << 20);

export default class Ignoring extends StreamRequestHandler {
  override async handle(): Promise<void> {
    const { request } = this;
    const how = await this.rfile.readLine();
    await request.write(`${process.pid} ${threadId}\n`);
    if (how === "write") { for (let i = 0; i < 3; i++) void request.write(LARGE); }
    if (how === "read") void request.read();
    if (how === "closeWrite") void [request.write(LARGE), request.closeWrite()];
    if (how === "writable") {
      const writer = request.writable.getWriter();
      void [writer.write(LARGE), writer.write(LARGE), writer.close()];
    }
    if (how === "startTls") void request.startTls({ cert: "/nowhere.pem", key: "/nowhere.key" });
    if (how === "reader") void new StreamReader(request).readExactly(10);
    // A Unix socket's peer that is gone is the end of the stream to a reader, and an error to a writer.
    const failing = async () => {
      for (let gone = false; !gone;) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        await Promise.resolve(request.write("x")).catch(() => gone = true);
      }
    };
    await (how === "closeWrite" || how === "writable" ? request.closed : failing());
    // What was rejected is told in a later turn.
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
