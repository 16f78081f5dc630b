"use strict";
(() => {
{% include "figures.js" %}
{% include "transcripts.js" %}
})();
