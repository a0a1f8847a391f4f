"""Survey-scale cluster search: survey tiles in, score maps and a candidate catalogue out.

`tiles` lists what there is, `reading` and `align` bring one survey tile into memory, `windows` and
`dataset` cut it, `blending` and `writer` put the scores together and save them, `candidates` and
`merge` make the catalogue; `evaluation` compares it with a truth or a reference catalogue.
"""
