"use strict";
(() => {
{% include "figures.js" %}
})();
