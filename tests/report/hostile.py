"""Text that tries to be more than text, by what it tries."""

HOSTILE = {
    "markup": '<img src=x onerror="window.hit=1"><script>window.hit=1</script>',
    "end of script": "</script><script>window.hit=1</script><!--",
    "template": "{{ 7*7 }} ${window.hit=1} {% raw %}",
    "attribute": "\"' onmouseover='window.hit=1' x=\"",
    "direction": "abc\u202efdp.exe\u2066\u2069",
    "emoji": "👩\u200d🔬🏳️\u200d🌈",
    "nothing": "nul\x00\x1b[31m\ud800",
    "megabyte": "m" * 1_000_000,
}
