"""One file a library: `claims()` yields what it computes, and imports it only then."""
