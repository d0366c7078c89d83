/** Asks, and sends back the answer that comes within the milliseconds of the server's `data`, or the code of the error. */
import { BaseRequestHandler, type SocketError } from "@sockets/server";

export default class HeldUp extends BaseRequestHandler {
  override async handle(): Promise<void> {
    this.request.timeout = this.server.data as number;
    await this.request.write("?");
    const answer = await this.request.read().catch((error: SocketError) => new TextEncoder().encode(error.code));
    if (answer !== null) await this.request.write(answer);
  }
}
