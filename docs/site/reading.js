/* Names and keys for those who do not see or point: Material makes these parts without them. */
"use strict";
function named() {
  document.querySelectorAll(".md-search:not([aria-label])").forEach((part) => part.setAttribute("aria-label", "Search"));
  document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((part) => {
    const all = [...document.querySelectorAll(".md-code__nav")];
    part.setAttribute("aria-label", "Example " + (all.indexOf(part) + 1));
  });
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((part) => {
    part.setAttribute("tabindex", "0");
    part.setAttribute("role", "group");
    part.setAttribute("aria-label", "Table");
  });
}
named();
new MutationObserver(named).observe(document.body, { childList: true, subtree: true });
