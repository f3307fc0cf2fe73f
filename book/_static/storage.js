// Some browsers refuse all storage, and then to name it already throws. The theme and the search ask
// for it unguarded; they get a storage that ends with the page.
try {
  void globalThis.localStorage;
} catch {
  /** @type {Map<string, string>} */
  const kept = new Map();
  const storage = {
    getItem: (/** @type {string} */ key) => kept.get(key) ?? null,
    setItem: (/** @type {string} */ key, /** @type {string} */ value) => kept.set(key, value),
    removeItem: (/** @type {string} */ key) => kept.delete(key),
  };
  Object.defineProperty(globalThis, "localStorage", { value: storage });
}
