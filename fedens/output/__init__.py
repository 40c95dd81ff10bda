"""Files for people and other programs: VTU and PVD for ParaView, cube and CHGCAR files."""
