# Writes OUT, a C++ source that defines lepton::web::IndexPage() with the bytes of IN.
file(READ ${IN} page)
# A raw string literal of one piece is limited to 64 KiB.
string(LENGTH "${page}" bytes)
if(bytes GREATER 60000)
  message(FATAL_ERROR "${IN} has ${bytes} bytes; split the literal to embed more than 60000")
endif()
file(WRITE ${OUT} "#include \"scheduler/web/page.h\"\n\nnamespace lepton::web {\n\nstd::string_view IndexPage() {\n  return R\"LEPTONPAGE(${page})LEPTONPAGE\";\n}\n\n}  // namespace lepton::web\n")
