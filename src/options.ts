/**
 * Checks the names of what was given as options, before anything is done with them.
 *
 * @param what What takes the options, as the message names it: `connect()`.
 * @param options What was given.
 * @param names The options that there are.
 * @throws {TypeError} When it is no object, or an option is unknown; the message names the option that is spelt most alike.
 */
export function checkOptions(what: string, options: unknown, names: readonly string[]): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError(`the options of ${what} must be an object, got ${shown(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) throw new TypeError(`unknown option of ${what}: ${name}${suggestion(name, names)}`);
  }
}

/**
 * Checks an option that must be an `AbortSignal`, or be left out.
 *
 * @param what What takes the options.
 * @param signal What was given.
 * @throws {TypeError} When it is neither.
 */
export function checkSignal(what: string, signal: unknown): void {
  if (signal === undefined || signal instanceof AbortSignal) return;
  const hint = signal instanceof AbortController ? "; pass the signal of the AbortController" : "";
  throw new TypeError(`the option signal of ${what} must be an AbortSignal, got ${shown(signal)}${hint}`);
}

/** The option that was probably meant, as the end of a message; nothing when none is alike. */
function suggestion(name: string, names: readonly string[]): string {
  let nearest = "";
  let least = Infinity;
  for (const candidate of names) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < least) [nearest, least] = [candidate, distance];
  }
  return least <= Math.max(2, name.length / 2) ? `; did you mean ${nearest}?` : `; there are ${names.join(", ")}`;
}

/** Insertions, deletions and substitutions that make one of the other (Levenshtein's distance). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const substituted = row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" && value !== null ? Object.prototype.toString.call(value) : String(value);
}
