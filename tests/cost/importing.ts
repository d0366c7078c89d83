/** Prints who asks for `process`, by way of which all that is Node's is reached, while the package is imported. */
const { process } = globalThis;
const asked: string[] = [];
Object.defineProperty(globalThis, "process", {
  get() {
    asked.push(new Error("process was asked for").stack!);
    return process;
  },
});
await import("@sockets/server");
console.log(asked.length === 0 ? "nobody" : asked.join("\n"));
