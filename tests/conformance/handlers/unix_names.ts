/** Answers with what it knows of the two ends. */
import { BaseRequestHandler, formatAddress } from "@sockets/server";

export default class Names extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { remoteAddress, localAddress } = this.request;
    await this.request.write(JSON.stringify([remoteAddress, this.clientAddress, localAddress, formatAddress(remoteAddress)]));
  }
}
