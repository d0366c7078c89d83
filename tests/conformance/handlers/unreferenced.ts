/** Answers, for programs that end when nobody asks. */
import { BaseRequestHandler } from "@sockets/server";

export default class Answering extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write("!");
  }
}
