# A quarter of an hour; OMNI_SOAK_S=60 ctest -R e2e_soak tries it in a minute.
e2e_test(e2e_soak full test_soak.py TIMEOUT 2400)
