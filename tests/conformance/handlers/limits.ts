/** A handler for the tests of limits, in the server's thread and in workers. */
import { BaseRequestHandler, type Connection } from "@sockets/server";

/** Does what the first byte says: echo, stream or flood without an end, throw, finish at once, or say nothing more. */
export default class Modes extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const first = await this.request.read();
    if (first === null) return;
    switch (String.fromCharCode(first[0]!)) {
      case "S":
        return await stream(this.request);
      case "F":
        return await flood(this.request);
      case "T":
        throw new RangeError("as it was told");
      case "D":
        return;
      case "B":
        return await broadside(this.request);
    }
    await this.request.write(first);
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** The same, whose `finish()` tells why the connection has ended: what it throws reaches the server from wherever it runs. */
export class Telling extends Modes {
  override async handle(): Promise<void> {
    await super.handle().catch(() => {});
  }

  override finish(): void {
    throw new Error(`finish: ${this.request.endReason}`);
  }
}

/** Writes for ever, as fast as the peer reads. */
async function stream(connection: Connection): Promise<void> {
  const chunk = new Uint8Array(65_536);
  for (;;) await connection.write(chunk);
}

/** Writes for ever, however fast the peer reads. */
async function flood(connection: Connection): Promise<void> {
  const chunk = new Uint8Array(65_536);
  while (connection.endReason === null) {
    void connection.write(chunk);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

/** One large write, and awaited. */
async function broadside(connection: Connection): Promise<void> {
  await connection.write(new Uint8Array(16 << 20));
}
