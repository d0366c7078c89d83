// The page takes these over as text, so they use nothing but what they are given.

/** A number with a few digits and the letter of its magnitude. */
export function short(value: number): string {
  if (value < 1000) return String(Number(value.toPrecision(3)));
  const power = Math.min(4, Math.floor(Math.log10(value) / 3));
  return `${Number((value / 1000 ** power).toPrecision(3))} ${" kMGT"[power]}`;
}

/** Milliseconds as people read them; what JSON has lost is longer than all. */
export function duration(ms: number | null): string {
  if (ms === null) return "?";
  if (ms < 1) return `${Number((ms * 1000).toPrecision(2))} µs`;
  if (ms < 1000) return `${Number(ms.toPrecision(3))} ms`;
  if (ms < 60_000) return `${Number((ms / 1000).toPrecision(3))} s`;
  const minutes = Math.floor(ms / 60_000);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
