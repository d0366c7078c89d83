import { StreamRequestHandler } from "@sockets/server";

/** Prints what a line asks for, in the ways that a program has, and answers each line. */
export class PrintingHandler extends StreamRequestHandler {
  override async handle(): Promise<void> {
    for await (const line of this.rfile) {
      const [command, count] = line.split(" ");
      if (command === "throw") throw new Error("x".repeat(Number(count)));
      if (command === "console.error") console.error("a word");
      if (command === "console.log") console.log("a word");
      if (command === "stderr") process.stderr.write("a word\n");
      if (command === "stdout") process.stdout.write("a word\n");
      await this.wfile.write(`${line}\n`);
    }
  }
}
