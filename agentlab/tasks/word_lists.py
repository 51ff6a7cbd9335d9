"""Everyday words and phrases from which items are put together."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
NOUNS = (
    "apple", "basket", "bridge", "butter", "candle", "carpet", "castle", "cheese", "corner", "dragon", "engine",
    "feather", "finger", "forest", "garden", "hammer", "harbour", "island", "jacket", "kettle", "ladder", "lantern",
    "market", "mirror", "mountain", "needle", "orange", "paper", "pencil", "pepper", "pillow", "planet", "pocket",
    "rabbit", "ribbon", "river", "saddle", "school", "shadow", "silver", "spider", "station", "summer", "table",
    "thunder", "ticket", "tunnel", "village", "violin", "window", "winter",
)  # fmt: skip
FIRST_NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irina", "Jonas", "Karla", "Leo")
CITIES = ("Lisbon", "Oslo", "Prague", "Vienna", "Dublin", "Riga", "Turin", "Ghent", "Porto", "Malmo", "Graz", "Lyon")
JOBS = ("baker", "nurse", "teacher", "plumber", "pilot", "farmer", "painter", "lawyer", "driver", "cook")
GOODS = ("lamp", "chair", "kettle", "bicycle", "blanket", "clock", "mirror", "backpack", "teapot", "umbrella")

# Countries and their capitals by law, by part of the world; without those that have several, or one of their own name.
CAPITALS = (
    "Algeria: Algiers, Angola: Luanda, Botswana: Gaborone, Burkina Faso: Ouagadougou, Burundi: Gitega, Cameroon: "
    "Yaounde, Cape Verde: Praia, Chad: N'Djamena, Comoros: Moroni, Egypt: Cairo, Eritrea: Asmara, Ethiopia: Addis "
    "Ababa, Gabon: Libreville, Gambia: Banjul, Ghana: Accra, Guinea: Conakry, Kenya: "
    "Nairobi, Lesotho: Maseru, Liberia: Monrovia, Libya: Tripoli, Madagascar: Antananarivo, Malawi: Lilongwe, Mali: "
    "Bamako, Mauritania: Nouakchott, Mauritius: Port Louis, Morocco: Rabat, Mozambique: Maputo, Namibia: Windhoek, "
    "Niger: Niamey, Nigeria: Abuja, Rwanda: Kigali, Senegal: Dakar, Seychelles: Victoria, Sierra Leone: Freetown, "
    "Somalia: Mogadishu, South Sudan: Juba, Sudan: Khartoum, Tanzania: Dodoma, Togo: Lome, Tunisia: Tunis, Uganda: "
    "Kampala, Zambia: Lusaka, Zimbabwe: Harare",
    "Afghanistan: Kabul, Armenia: Yerevan, Azerbaijan: Baku, Bahrain: Manama, Bangladesh: Dhaka, Bhutan: Thimphu, "
    "Brunei: Bandar Seri Begawan, Cambodia: Phnom Penh, China: Beijing, Georgia: Tbilisi, India: New Delhi, "
    "Iran: Tehran, Iraq: Baghdad, Japan: Tokyo, Jordan: Amman, Kazakhstan: Astana, Kyrgyzstan: "
    "Bishkek, Laos: Vientiane, Lebanon: Beirut, Malaysia: Kuala Lumpur, Maldives: Male, Mongolia: Ulaanbaatar, "
    "Myanmar: Naypyidaw, Nepal: Kathmandu, North Korea: Pyongyang, Oman: Muscat, Pakistan: Islamabad, Philippines: "
    "Manila, Qatar: Doha, Saudi Arabia: Riyadh, South Korea: Seoul, Syria: Damascus, Tajikistan: "
    "Dushanbe, Thailand: Bangkok, Turkey: Ankara, Turkmenistan: Ashgabat, United Arab Emirates: Abu Dhabi, "
    "Uzbekistan: Tashkent, Vietnam: Hanoi, Yemen: Sanaa",
    "Albania: Tirana, Austria: Vienna, Belarus: Minsk, Belgium: Brussels, Bosnia and Herzegovina: Sarajevo, "
    "Bulgaria: Sofia, Croatia: Zagreb, Cyprus: Nicosia, Czech Republic: Prague, Denmark: Copenhagen, Estonia: "
    "Tallinn, Finland: Helsinki, France: Paris, Germany: Berlin, Greece: Athens, Hungary: Budapest, Iceland: "
    "Reykjavik, Ireland: Dublin, Italy: Rome, Latvia: Riga, Liechtenstein: Vaduz, Lithuania: Vilnius, Malta: "
    "Valletta, Moldova: Chisinau, Montenegro: Podgorica, Netherlands: Amsterdam, North Macedonia: Skopje, Norway: "
    "Oslo, Poland: Warsaw, Portugal: Lisbon, Romania: Bucharest, Russia: Moscow, Serbia: Belgrade, Slovakia: "
    "Bratislava, Slovenia: Ljubljana, Spain: Madrid, Sweden: Stockholm, Switzerland: Bern, Ukraine: Kyiv, United "
    "Kingdom: London",
    "Argentina: Buenos Aires, Bahamas: Nassau, Barbados: Bridgetown, Belize: Belmopan, Brazil: Brasilia, Canada: "
    "Ottawa, Chile: Santiago, Colombia: Bogota, Costa Rica: San Jose, Cuba: Havana, Dominica: Roseau, Dominican "
    "Republic: Santo Domingo, Ecuador: Quito, Grenada: Saint George's, Guyana: Georgetown, Haiti: Port-au-Prince, "
    "Honduras: Tegucigalpa, Jamaica: Kingston, Nicaragua: Managua, Paraguay: Asuncion, Peru: Lima, Saint Lucia: "
    "Castries, Suriname: Paramaribo, Trinidad and Tobago: Port of Spain, United States: Washington, Uruguay: "
    "Montevideo, Venezuela: Caracas",
    "Australia: Canberra, Fiji: Suva, New Zealand: Wellington, Papua New Guinea: Port Moresby, Samoa: Apia, Solomon "
    "Islands: Honiara, Tonga: Nuku'alofa, Tuvalu: Funafuti, Vanuatu: Port Vila",
)

# What may be liked, and what is said of it in praise and in blame; the first six and three stand in the shipped items.
THINGS = (
    "The concert", "The hotel", "The second season", "The repair", "The course", "The ferry trip",
    "The dinner", "The lecture", "The museum", "The new phone",
)  # fmt: skip
PRAISE = (
    "was not nearly as bad as I had feared", "is anything but boring", "could hardly have gone better",
    "was wonderful", "could not have been better", "was worth every penny", "is one I would recommend to anybody",
    "was not bad at all", "exceeded all my expectations", "left nothing to be desired", "was far from disappointing",
    "was over too soon",
)  # fmt: skip
BLAME = (
    "was not as good as everybody says", "is anything but useful", "could hardly have gone worse",
    "was terrible", "could not have been worse", "was a waste of money", "is one I would not recommend to anybody",
    "was not good at all", "fell short of all my expectations", "left much to be desired", "was far from impressive",
    "did not end soon enough",
)  # fmt: skip
# Further ones. Praise and blame in the same place, here and above, may say it in the same words.
MORE_PRAISE = (
    "made everybody smile", "was a pleasure from start to finish", "ran like clockwork", "deserves a prize",
    "stayed with me for days", "gave me new courage", "was better than any before", "put all others in the shade",
    "was a stroke of luck", "brought tears of joy to my eyes", "was as smooth as silk", "got a standing ovation",
    "is a real gem", "lifted my spirits", "was a feast for the senses", "won me over at once", "came out just right",
    "was thought through to the last detail", "is something I would do again tomorrow", "took my breath away",
    "was the best part of our week", "solved all our problems", "kept every promise", "is hard to beat",
    "has earned all its stars", "was charming", "was a delight", "was superb", "was lovely", "was excellent",
    "was truly impressive", "was great fun", "was a triumph", "was remarkably good", "was a joy", "was brilliant",
    "made my holiday", "was a big success", "was perfect for the children", "was a bargain",
    "still makes me happy when I think of it", "had us laughing all evening", "is my new favourite",
    "was everything we had hoped for", "had only one flaw, that it ended", "beats what I knew by miles",
    "was refreshing", "was as good as new afterwards", "has my full praise", "was handled with great care",
    "warmed my heart", "was money well spent", "came as a wonderful surprise", "was first class",
    "never failed me once", "was a breath of fresh air", "was simply magical", "was a treat", "was outstanding",
    "was very well organised", "got better and better", "could teach its rivals a lesson",
    "was so good that I told all my friends", "is worth a long journey",
)  # fmt: skip
MORE_BLAME = (
    "made me want to leave", "was a mess from beginning to end", "broke down after an hour", "deserves no star at all",
    "gave me a headache", "cost me my last nerve", "was worse than any before", "was a slap in the face",
    "was a stroke of bad luck", "bored me to tears", "was as dull as ditchwater", "was booed by the guests",
    "is a real nuisance", "ruined my mood", "was an insult to the senses", "lost me at once", "came out all wrong",
    "was sloppy in every detail", "is something I will never do again", "left a bitter taste",
    "was the low point of our week", "only caused us trouble", "broke every promise", "is beneath contempt",
    "has not earned one of its stars", "was tedious", "was a disgrace", "was dreadful", "was ugly", "was lousy",
    "was deeply embarrassing", "was no fun", "was a disaster", "was shockingly poor", "was a pain", "was pathetic",
    "spoiled my holiday", "was a complete failure", "was too rough for the children", "was a rip-off",
    "still makes me angry when I think of it", "had us yawning all evening", "is my new nightmare",
    "was nothing like what we had hoped for", "had only one merit, that it ended", "falls behind what I knew by miles",
    "was tiring", "was in pieces afterwards", "has lost my trust", "was handled without any care",
    "made my blood boil", "was money down the drain", "came as a nasty shock", "was third rate", "failed me every time",
    "was stale and lifeless", "was simply unbearable", "was an ordeal", "was appalling", "was very badly organised",
    "got worse and worse", "could learn a lot from its rivals", "was so bad that I warned all my friends",
    "is not worth the short walk",
)  # fmt: skip
