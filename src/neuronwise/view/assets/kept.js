// The address says what is seen: whoever opens it sees the same.

const kept = (name) => new URLSearchParams(location.search).get(name) ?? "";

/** Put values into the address, without a new page; empty ones leave it. */
function keep(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
}
